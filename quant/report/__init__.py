"""What people see: tables in the terminal, plain text, pictures, one page of HTML."""
