"""Sessions: the handshake, the frames as documented, going on elsewhere, and clients that are let go."""
