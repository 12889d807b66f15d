"""The proof: does pretraining on synthesised localization tasks pay?"""
