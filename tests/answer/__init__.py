"""What is answered, by the LLM server or from memory, and what becomes of it: history and feedback."""
