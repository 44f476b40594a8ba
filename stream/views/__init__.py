"""Views over `tagged` for recommenders, by Faust: tables with changelogs, and an API over HTTP."""
