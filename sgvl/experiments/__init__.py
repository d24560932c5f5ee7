"""What notebooks 05, 06 and 09 ask judges, beyond single judgements."""
