"""What is done to the library from outside: damaged files, kills, full disks, foreign arguments; every one seeded."""
