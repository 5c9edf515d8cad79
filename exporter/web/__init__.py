"""The HTTP server: thin handlers over ports; Prometheus' API, the exposition, the platform's endpoints.

`params` and `encode` are pure (query string -> typed values; values -> JSON as Go writes it). `ports`
declares what the handlers need from the rest of the program; `server` builds the aiohttp application from
it. `queries` turns the parameters of a query into a `reply`, whichever way they came: by aiohttp, or by
`direct`, which answers plain requests on their connection before aiohttp would have read them. Queries are
evaluated in worker threads but for those that take less time than the way there. No other edge is imported.
"""
