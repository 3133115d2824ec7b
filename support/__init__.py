"""What the files above need and what is not the subject: flags, run folders, formulas, figures."""
