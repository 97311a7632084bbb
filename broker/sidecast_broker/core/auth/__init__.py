"""Who may do what, decided from values alone."""
