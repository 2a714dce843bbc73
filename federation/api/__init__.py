"""The REST API: routes, OpenAPI, authentication, event stream."""
