/** The open image in the page's address, so that reload, links and the browser's own buttons keep it. */

/** Name of the image in the address, empty without one. */
export function addressedImage(): string {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

/** Put an image into the address; what follows the # is not sent to the server. */
export function addressImage(image: string): void {
  if (addressedImage() !== image) history.pushState(null, "", `#${encodeURIComponent(image)}`);
}

/** Be told when the address names another image. */
export function watchAddress(open: (image: string) => void): void {
  addEventListener("popstate", () => open(addressedImage()));
}
