"""The command line: verbs, their options, and the numbers they hand on."""
