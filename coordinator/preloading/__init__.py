"""Prepare what will be asked for: reports of use → forecast of the next hour → plan that pays its way → shelf in the near tier."""
