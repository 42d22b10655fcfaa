"""``python -m exmed_bert``, the same as the console command ``exmed-bert``."""

from exmed_bert.commands import main

if __name__ == "__main__":
    main()
