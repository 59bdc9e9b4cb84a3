#!/usr/bin/env bash
# Builds the documentation into build/site. Every warning is an error: a broken link, a page that the navigation lacks.
source "$(dirname "$0")/common.sh"
scripts/setup.sh dev
say "building the documentation into build/site"
# The theme's advertisement of a future mkdocs is no warning about these pages.
NO_MKDOCS_2_WARNING=true mkdocs build --quiet --strict
echo "build/site/index.html"
