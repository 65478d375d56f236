"""The texts of notification before anybody gets them: judged by each carrier's rules, and shown as people will see them."""
