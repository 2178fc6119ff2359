"""How uvicorn serves the gateway."""
