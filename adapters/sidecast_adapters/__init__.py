"""What an agent installs: publish task events to JetStream."""
