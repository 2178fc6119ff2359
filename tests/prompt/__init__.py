"""What a visitor sends: refused frames, limits, the same prompt again."""
