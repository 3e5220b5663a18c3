#!/usr/bin/env bash
# GNU parallel, curl and jq; the job log is what makes it go on (--resume) after a crash.
#
# Usage: parallel.sh ORIGIN FOLDER TABLE
set -euo pipefail
export ORIGIN=$1 FOLDER=$2
mkdir -p "$FOLDER"

edit() {
  local sku=$1 title=$2 url=$3 id result
  id=$(jq -nc --arg prompt "Put the $title on a pure white background." --arg url "$url" \
         '{prompt: $prompt, image_urls: [$url]}' |
       curl -fsS -H 'Authorization: Bearer token' -H 'Content-Type: application/json' \
         --data-binary @- "$ORIGIN/v1/models/google/nano-banana-2/edit" | jq -r .request_id)
  while true; do
    result=$(curl -fsS -H 'Authorization: Bearer token' "$ORIGIN/v1/requests/$id/result")
    [ "$(jq -r .status <<<"$result")" = succeeded ] && break
    sleep 1
  done
  curl -fsS -o "$FOLDER/$sku.jpg.part" "$(jq -r '.output.images[0]' <<<"$result")"
  mv "$FOLDER/$sku.jpg.part" "$FOLDER/$sku.jpg"
}
export -f edit

parallel --will-cite --colsep , --header : --jobs 64 --joblog "$FOLDER/joblog" --resume \
  edit '{sku}' '{title}' '{url}' :::: "$3"
