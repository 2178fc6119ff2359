"""The same service as a competent team would first write it: FastAPI, SQLModel, pydantic, one shared httpx client.

One process, one commit for each row, the sessions in memory. It is what the gateway is measured against, and knows
nothing of other instances, of resuming, or of limits.
"""
