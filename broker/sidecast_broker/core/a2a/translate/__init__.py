"""Between A2A v1.0 and v0.3, in JSON-RPC and in REST form; lossless, on raw JSON."""
