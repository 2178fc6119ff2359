"""The image, the way to the hosts and the alerts, with real engines: `make delivery`."""
