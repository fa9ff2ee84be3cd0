"""Results for people: numbers by experiment, pictures, one table."""
