"""The workflow language: which tasks follow a result. Pure: files and values in, planned follow-ups out.

definition/ reads and checks the files. planning/ decides what follows from one result. docs/ describes the language and its
files. The functions to start with: `loader.load`, `view.view`, `plan.plan`.
"""
