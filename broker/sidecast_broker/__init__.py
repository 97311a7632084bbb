"""The sidecar: reads task events from JetStream and fans them out over SSE."""
