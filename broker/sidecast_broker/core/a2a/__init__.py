"""The A2A protocol: both generations, both bindings; pure."""
