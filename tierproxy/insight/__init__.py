"""What operators see: the dashboard at the admin port, and `tierproxy status`.

Reading order for its story: facts (what was heard) → picture and overview (what it means) → survey (who is asked) →
watch (when) → traffic and told (this process, its workers) → pages (what is shown) → site (to whom).
"""
