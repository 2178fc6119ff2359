"""The documents that describe the gateway, /openapi.json and /asyncapi.json, against what it really does."""
