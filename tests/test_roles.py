"""Published rows in the places of drawn ones, from 01_data to the rows of both trainings."""
