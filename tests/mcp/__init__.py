"""The Model Context Protocol, spoken natively."""
