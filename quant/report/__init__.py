"""What people see: tables in the terminal, plain text."""
