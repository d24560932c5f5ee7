"""What is printed: tables, figures, the published numbers, their audit, and the report."""
