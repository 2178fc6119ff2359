"""From the prompt to the stored answer: its order, and what it outlives."""
