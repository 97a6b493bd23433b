"""An edge's part in preparing: it reports what was asked, loads what will be, and makes it in idle time.

SpokenAnswers -> reporting -> voice.usage.<edge> -> coordinator.forecasting -> $KV.forecast.<group> -> preparing
"""
