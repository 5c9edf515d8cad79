"""The HTTP server: thin handlers over ports; Prometheus' API, the exposition, the platform's endpoints.

`params` and `encode` are pure (query string -> typed values; values -> JSON as Go writes it). `ports`
declares what the handlers need from the rest of the program; `server` builds the aiohttp application from
it. Queries are evaluated in worker threads, never on the event loop. No other edge is imported here.
"""
