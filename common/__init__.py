"""What several parts of the gateway use."""
