"""The drawn world: scenes, questions about them, and the data sets made of them."""
