"""What time does to the state: deadlines and housekeeping."""
