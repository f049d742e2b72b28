"""The commands of `codesign-opt`, by what they are for; they know `import codesign_opt as co` alone."""
