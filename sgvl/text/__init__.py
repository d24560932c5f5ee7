"""Text to and from models: prompts, and parsers of replies."""
