import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Relative addresses, so that the page works under any prefix; no inlined assets, since the page's policy forbids data: URLs.
export default defineConfig({
  base: "./",
  plugins: [svelte()],
  build: {
    outDir: "../microtome/browser/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2023",
  },
});
