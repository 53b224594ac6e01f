"""What a person reads of an evaluation: tables, a summary in words, an HTML page with sounds."""
