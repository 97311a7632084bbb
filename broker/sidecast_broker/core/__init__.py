"""Pure code: no asyncio, no clock, no settings, no logging, no I/O. Time and limits come in as arguments."""
