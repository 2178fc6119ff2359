"""`make bench`: what the gateway costs, beside a FastAPI peer under the same load."""
