"""What models are told and what they may answer: versioned prompt files, answer schemas, fenced document text."""
