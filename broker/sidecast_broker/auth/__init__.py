"""Who asks, and what they may: credentials, and the look-ups that authorising needs."""
