"""Measures the broker against `send()` in C, the usual aiohttp-sse server and nchan: `python -m bench`."""
