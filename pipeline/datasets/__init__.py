"""Dataset versions: chosen by filters at a moment, split by a hash, compared, verified, and read in pages for exports."""
