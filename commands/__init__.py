"""The commands of the command line, a file each: arguments in, events rendered out, no logic."""
