"""Text in and text out: instructions to models, and how their replies are parsed."""
