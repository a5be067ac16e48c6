"""What is announced of jobs, and who hears it."""
